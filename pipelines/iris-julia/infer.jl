# Name the species of each flower: julia infer.jl MODEL ATTRIBUTES OUT
#
# For each CSV file of measurements (no header) it writes one of the same name: one species a line, that which most of
# the model's trees name.

include("tree.jl")

trees = load_trees(ARGS[1])
for name in filter(endswith(".csv"), readdir(ARGS[2]))
    measurements, _ = read_table(joinpath(ARGS[2], name))
    open(joinpath(ARGS[3], name), "w") do file
        for flower in eachrow(measurements)
            println(file, commonest([classify(tree, flower) for tree in trees]))
        end
    end
end
