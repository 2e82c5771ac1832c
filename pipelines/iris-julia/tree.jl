# What train.jl, train-forest.jl and infer.jl share: tables of flowers, and decision trees grown, written and read.
#
# Julia by itself (1.6 or newer) is enough, no package is needed.

# A place where a tree divides: what has less than `limit` in `column` goes left.  A leaf has column 0 and a species.
struct Node
    column::Int
    limit::Float64
    species::String
    left::Union{Node,Nothing}
    right::Union{Node,Nothing}
end

leaf(species) = Node(0, 0.0, species, nothing, nothing)

# The measurements of a CSV file without a header, a matrix of a row a flower and four columns (cm), and what stands in
# the last field of each row: the species, if the table has it.
function read_table(path)
    rows = [split(strip(line), ',') for line in eachline(path) if !isempty(strip(line))]
    measurements = [parse(Float64, row[column]) for row in rows, column in 1:4]
    return measurements, [String(row[end]) for row in rows]
end

# The species that most have; of several, the first by name.
function commonest(species)
    names = sort(unique(species))
    return names[argmax([count(==(name), species) for name in names])]
end

# How many flowers would be named wrongly if names were drawn from all of these (Gini).
function mixture(species)
    total = length(species)
    return total - sum(count(==(name), species)^2 for name in sort(unique(species))) / total
end

# A tree of at most `depth` divisions one below the other, each the one that leaves the least mixture.
function grow(measurements, species, depth)
    column, limit, least = 0, 0.0, mixture(species)
    if depth > 0
        for candidate in 1:size(measurements, 2)
            levels = sort(unique(measurements[:, candidate]))
            for (below, above) in zip(levels[1:end-1], levels[2:end])
                middle = (below + above) / 2
                left = measurements[:, candidate] .< middle
                mixed = mixture(species[left]) + mixture(species[.!left])
                if mixed < least - 1e-9
                    column, limit, least = candidate, middle, mixed
                end
            end
        end
    end
    if column == 0
        return leaf(commonest(species))
    end
    left = measurements[:, column] .< limit
    right = .!left
    return Node(
        column,
        limit,
        "",
        grow(measurements[left, :], species[left], depth - 1),
        grow(measurements[right, :], species[right], depth - 1),
    )
end

# The species that a tree names for one flower.
function classify(tree, flower)
    node = tree
    while node.column > 0
        node = flower[node.column] < node.limit ? node.left : node.right
    end
    return node.species
end

# Write trees as text: how many, then a node a line (column, limit, species), each before its left and its right side.
function save_trees(path, trees)
    open(path, "w") do file
        println(file, length(trees))
        for tree in trees
            write_node(file, tree)
        end
    end
end

function write_node(file, node)
    println(file, node.column, ' ', node.limit, ' ', node.species)
    if node.column > 0
        write_node(file, node.left)
        write_node(file, node.right)
    end
end

function load_trees(path)
    lines = readlines(path)
    total = parse(Int, popfirst!(lines))
    return [read_node(lines) for _ in 1:total]
end

function read_node(lines)
    column, limit, species = split(popfirst!(lines), ' '; limit = 3)
    if column == "0"
        return leaf(String(species))
    end
    left = read_node(lines)
    right = read_node(lines)
    return Node(parse(Int, column), parse(Float64, limit), "", left, right)
end
