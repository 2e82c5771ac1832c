#!/bin/sh
# The Iris walkthrough in a scratch repository: each command is printed before it runs.  It is removed in the end,
# unless KEEP=1 is set.  The same with explanations: docs/walkthroughs/iris.md
set -eu

scratch=$(mktemp -d "${TMPDIR:-/tmp}/gitpipe-demo.XXXXXX")
clean_up() {
    cd "$scratch/iris" 2>/dev/null && gitpipe runner stop >/dev/null 2>&1 || :
    cd /
    if [ "${KEEP-}" = 1 ]; then echo "kept: $scratch/iris"; else rm -rf "$scratch"; fi
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# The demo must not depend on who runs it, nor sign its commits with their key.
GIT_AUTHOR_NAME=${GIT_AUTHOR_NAME:-Demo} GIT_AUTHOR_EMAIL=${GIT_AUTHOR_EMAIL:-demo@example.org}
GIT_COMMITTER_NAME=$GIT_AUTHOR_NAME GIT_COMMITTER_EMAIL=$GIT_AUTHOR_EMAIL
GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1 GIT_PAGER=cat
export GIT_AUTHOR_NAME GIT_AUTHOR_EMAIL GIT_COMMITTER_NAME GIT_COMMITTER_EMAIL
export GIT_CONFIG_GLOBAL GIT_CONFIG_NOSYSTEM GIT_PAGER
unset GITPIPE GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

say() { printf '\n\033[1m# %s\033[0m\n' "$*"; }
run() { printf '\033[32m$ %s\033[0m\n' "$*" && eval "$*"; }
[ -t 1 ] || { say() { printf '\n# %s\n' "$*"; }; run() { printf '$ %s\n' "$*" && eval "$*"; }; }

cd "$scratch"
say "A git repository with the Iris pipelines"
run "git init -q -b main iris && cd iris"
run "gitpipe init"
run "gitpipe example iris"
run "git add pipelines samples && git commit -q -m 'Iris pipelines'"

say "Two data repos, which are branches; the training data goes in without a checkout"
run "gitpipe create-repo training"
run "gitpipe create-repo attributes"
run "gitpipe put-file training master -c -f samples/iris/iris.csv"
run "gitpipe list-file training master"

say "A pipeline that trains a model, and one that applies it"
run "gitpipe create-pipeline -f pipelines/iris/train.json"
run "gitpipe create-pipeline -f pipelines/iris/infer.json"

say "New flowers come in by git commit, in a worktree; nothing else is typed"
run "git worktree add -q ../attributes attributes"
run "cp samples/iris/attributes/*.csv ../attributes/data/"
run "cd ../attributes"
run "gitpipe add data && git commit -q -m 'Two batches of flowers'"
run "cd ../iris"
run "gitpipe wait"

say "The results are commits on the branch of the pipeline"
run "gitpipe list-repo"
run "gitpipe get-file inference master 1.csv"
run "gitpipe get-file inference master 2.csv"
run "gitpipe list-job"

say "Another kind of model: what depends on it follows"
run "gitpipe update-pipeline -f pipelines/iris/train-lda.json"
run "gitpipe wait"

say "Two rows were wrong: a new training set, and again all follows"
run "git worktree add -q ../training training"
run "sed -i.bak 2,3d ../training/data/iris.csv && rm ../training/data/iris.csv.bak"
run "cd ../training && gitpipe add data && git commit -q -m 'Two rows less' && cd ../iris"
run "gitpipe wait"

say "Which model and which data made the newest predictions?"
run "gitpipe log --provenance --graph --limit 1 inference"
