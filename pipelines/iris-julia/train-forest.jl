# Fit a forest to a CSV file, decision trees that have each seen other rows: julia train-forest.jl TABLE MODEL
#
# Each row is sepal length, sepal width, petal length, petal width (cm), species; there is no header.

include("tree.jl")

# As many rows as there are, drawn with replacement: the same ones for the same seed, with every version of Julia.
function draw(total, seed)
    state = UInt64(seed)
    drawn = Int[]
    for _ in 1:total
        state = state * UInt64(6364136223846793005) + UInt64(1442695040888963407)
        push!(drawn, Int((state >> 33) % UInt64(total)) + 1)
    end
    return drawn
end

measurements, species = read_table(ARGS[1])
draws = [draw(length(species), seed) for seed in 1:25]
save_trees(ARGS[2], [grow(measurements[rows, :], species[rows], 6) for rows in draws])
