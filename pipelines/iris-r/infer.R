# Name the species of each flower: Rscript infer.R MODEL ATTRIBUTES OUT
#
# For each CSV file of measurements (no header) it writes one of the same name: one species a line.

folders <- commandArgs(trailingOnly = TRUE)
if (length(folders) != 3) stop("usage: Rscript infer.R MODEL ATTRIBUTES OUT")

model <- readRDS(file.path(folders[1], "model.rds"))
for (name in list.files(folders[2], pattern = "\\.csv$")) {
  measurements <- as.matrix(read.csv(file.path(folders[2], name), header = FALSE))
  scores <- sweep(measurements %*% model$weights, 2, model$offsets, "+")
  writeLines(model$species[max.col(scores, ties.method = "first")], file.path(folders[3], name))
}
