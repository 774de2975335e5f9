# Requests at and over the limits, with etcd's errors.
. "$LIB"
head -c 1500000 /dev/zero | tr '\0' v >big
printf '$ put 1,500,000 bytes\n'; ctl put big <big; printf '[exit %s]\n' "$?"
ctl get big --print-value-only | wc -c
head -c 1600000 /dev/zero | tr '\0' v >huge
printf '$ put 1,600,000 bytes\n'; ctl put huge <huge; printf '[exit %s]\n' "$?"
head -c 3000000 /dev/zero | tr '\0' v >monster
printf '$ put 3,000,000 bytes\n'; ctl put monster <monster; printf '[exit %s]\n' "$?"
t get big --keys-only
ops() { local i; printf '\n'; for i in $(seq "$1"); do printf 'put op%d x\n' "$i"; done; printf '\n\n'; }
printf '$ txn of 128 puts\n'; ops 128 | ctl txn | head -n 2; printf '[exit %s]\n' "$?"
printf '$ txn of 129 puts\n'; ops 129 | ctl txn; printf '[exit %s]\n' "$?"
t get op --prefix --keys-only -w json
