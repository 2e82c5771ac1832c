# Fit a decision tree to a CSV file: julia train.jl TABLE MODEL
#
# Each row is sepal length, sepal width, petal length, petal width (cm), species; there is no header.

include("tree.jl")

measurements, species = read_table(ARGS[1])
save_trees(ARGS[2], [grow(measurements, species, 6)])
