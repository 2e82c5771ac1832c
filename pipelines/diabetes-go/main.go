// Train fits a line, as pipelines/diabetes/train.py does, and writes the same bytes:
//
//	train -inFile=training_prod.csv -outDir=OUT
//
// The progression of the disease (column y) is explained by body mass index and a serum value (columns bmi and ltg).
package main

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"
	"strconv"
)

// Model is the line in the form that its JSON file has.
type Model struct {
	Intercept    float64       `json:"intercept"`
	Coefficients []Coefficient `json:"coefficients"`
}

// Coefficient says how much y grows with one of the variables.
type Coefficient struct {
	Name  string  `json:"name"`
	Value float64 `json:"coefficient"`
}

var variables = []string{"bmi", "ltg"}

func main() {
	log.SetFlags(0)
	log.SetPrefix("train: ")
	inFile := flag.String("inFile", "", "the table to learn from, a CSV file with a header")
	outDir := flag.String("outDir", "", "the folder for model.json")
	flag.Parse()
	if *inFile == "" || *outDir == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := train(*inFile, *outDir); err != nil {
		log.Fatal(err)
	}
}

func train(inFile, outDir string) error {
	columns, err := read(inFile, append(variables[:len(variables):len(variables)], "y"))
	if err != nil {
		return err
	}
	last := len(columns) - 1
	line, err := fit(columns[:last], columns[last])
	if err != nil {
		return fmt.Errorf("%s: %w", filepath.Base(inFile), err)
	}
	model := Model{Intercept: line[0]}
	for i, name := range variables {
		model.Coefficients = append(model.Coefficients, Coefficient{name, line[i+1]})
	}
	text, err := json.MarshalIndent(model, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(outDir, "model.json"), text, 0o644)
}

// read gives the named columns of a CSV file.
func read(path string, names []string) ([][]float64, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	rows, err := csv.NewReader(file).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("%s is empty", filepath.Base(path))
	}
	place := map[string]int{}
	for i, name := range rows[0] {
		place[name] = i
	}
	columns := make([][]float64, len(names))
	for i, name := range names {
		at, ok := place[name]
		if !ok {
			return nil, fmt.Errorf("%s: there is no column %s", filepath.Base(path), name)
		}
		for number, row := range rows[1:] {
			value, err := strconv.ParseFloat(row[at], 64)
			if err != nil || math.IsNaN(value) || math.IsInf(value, 0) {
				return nil, fmt.Errorf("%s, row %d: %s is %q, not a finite number", filepath.Base(path), number+1, name, row[at])
			}
			columns[i] = append(columns[i], value)
		}
	}
	return columns, nil
}

// fit gives the intercept and a coefficient for each column of the line that comes closest to y in the least squares:
// a QR decomposition with Householder's reflections.
func fit(columns [][]float64, y []float64) ([]float64, error) {
	rows, count := len(y), len(columns)+1
	if rows < count {
		return nil, fmt.Errorf("%d rows are too few to fit %d numbers", rows, count)
	}
	upper := make([][]float64, count)
	for j := range upper {
		upper[j] = make([]float64, rows)
		if j > 0 {
			copy(upper[j], columns[j-1])
			continue
		}
		for i := range upper[j] {
			upper[j][i] = 1
		}
	}
	mirrors, diagonal := make([][]float64, count), make([]float64, count)
	for k := range mirrors {
		length, largest := 0.0, 0.0
		for i, value := range upper[k] {
			largest = math.Max(largest, math.Abs(value))
			if i >= k {
				length = math.Hypot(length, value)
			}
		}
		if length <= 1e-12*largest {
			return nil, errors.New("a column is constant, or follows from the others: no single line fits best")
		}
		length = math.Copysign(length, upper[k][k])
		mirrors[k] = make([]float64, rows-k)
		for i := range mirrors[k] {
			mirrors[k][i] = upper[k][k+i] / length
		}
		mirrors[k][0]++
		for _, column := range upper[k+1:] {
			reflect(mirrors[k], column[k:])
		}
		diagonal[k] = -length
	}
	answer := make([]float64, count)
	for k := count - 1; k >= 0; k-- {
		q := make([]float64, rows)
		q[k] = 1
		for j := k; j >= 0; j-- {
			reflect(mirrors[j], q[j:])
		}
		answer[k] = dot(q, y)
		for j := k + 1; j < count; j++ {
			answer[k] -= float64(answer[j] * upper[j][k])
		}
		answer[k] /= diagonal[k]
	}
	return answer, nil
}

func reflect(mirror, column []float64) {
	share := -dot(mirror, column) / mirror[0]
	for i, m := range mirror {
		column[i] += float64(share * m)
	}
}

// dot rounds each product, by converting it: else some processors add it unrounded, and give other last digits.
func dot(one, other []float64) float64 {
	total := 0.0
	for i, value := range one {
		total += float64(value * other[i])
	}
	return total
}
