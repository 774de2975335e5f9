# Sourced by every script. `t ARGS…` runs etcdctl as a person would, and prints the command, what came
# out (both streams) and the exit code. ENDPOINT, ETCDCTL and SCRATCH come from the test.
export ETCDCTL_API=3
cd "$SCRATCH"

ctl() { timeout 20 "$ETCDCTL" --endpoints="$ENDPOINT" "$@" 2>&1; }

t() {
  printf '$ etcdctl %s\n' "$*"
  ctl "$@"
  printf '[exit %s]\n' "$?"
}

# Like `t`, with standard input from the second argument on line one.
ti() {
  local input=$1
  shift
  printf '$ etcdctl %s  <<< %q\n' "$*" "$input"
  printf '%b' "$input" | ctl "$@"
  printf '[exit %s]\n' "$?"
}

# bg FILE ARGS…: starts a long-running command; its pid stands in $!.
bg() {
  : >"$1"
  local out=$1
  shift
  printf '$ etcdctl %s &\n' "$*"
  "$ETCDCTL" --endpoints="$ENDPOINT" "$@" >"$out" 2>&1 &
}

# wait_lines FILE N: until FILE has N lines (5 s at most).
wait_lines() {
  local i
  for i in $(seq 100); do
    [ "$(wc -l <"$1")" -ge "$2" ] && return
    sleep 0.05
  done
  echo "only $(wc -l <"$1") of $2 lines came:"
}
