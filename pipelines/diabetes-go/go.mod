module train

go 1.18
