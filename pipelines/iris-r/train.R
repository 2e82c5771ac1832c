# Fit a linear discriminant analysis to every CSV file in a folder: Rscript train.R IN OUT
#
# Each row is sepal length, sepal width, petal length, petal width (cm), species; there is no header.
# R by itself is enough, no package is needed.

folders <- commandArgs(trailingOnly = TRUE)
if (length(folders) != 2) stop("usage: Rscript train.R IN OUT")

files <- sort(list.files(folders[1], pattern = "\\.csv$", full.names = TRUE), method = "radix")
if (length(files) == 0) stop("no CSV file in ", folders[1])
flowers <- do.call(rbind, lapply(files, read.csv, header = FALSE))
measurements <- as.matrix(flowers[, 1:4])
species <- factor(flowers[, 5], levels = sort(unique(flowers[, 5]), method = "radix"))

# Each species is a cloud of its own, round its mean; the shape is taken to be the same for all.
means <- apply(measurements, 2, function(column) tapply(column, species, mean))
spread <- crossprod(measurements - means[as.integer(species), ]) / (nrow(flowers) - nlevels(species))

# The score of a species, linear in the measurements: the highest one wins.
weights <- solve(spread, t(means))
offsets <- log(as.vector(table(species)) / nrow(flowers)) - colSums(t(means) * weights) / 2

model <- list(species = levels(species), weights = unname(weights), offsets = unname(offsets))
saveRDS(model, file.path(folders[2], "model.rds"))
