# Transactions: every compare target, both branches, errors before and at apply.
. "$LIB"
t put k1 v1
t put k1 v1b
t put k2 v2
ti 'value("k1") = "v1b"\n\nget k1\nput k3 yes\n\nput k3 no\n\n' txn
ti 'value("k1") = "wrong"\n\nput k3 yes\n\nput k3 no\nget k3\n\n' txn
ti 'version("k1") = "2"\n\nget k1\n\nget k2\n\n' txn
ti 'version("k1") > "2"\n\nget k1\n\nget k2\n\n' txn
ti 'create("k1") < "3"\n\nget k1\n\nget k2\n\n' txn
ti 'mod("k1") = "3"\n\nget k1\n\nget k2\n\n' txn
ti 'mod("absent") = "0"\n\nput absent now\n\nget absent\n\n' txn
ti 'mod("absent") = "0"\n\nput absent now\n\nget absent\n\n' txn
ti 'value("ghost") != "x"\n\nget k1\n\nget k2\n\n' txn
ti '\nput a 1\nput b 2\nget a --prefix\ndel k2 --prev-kv\nget k2\n\n\n' txn
ti '\nput a 1\nput a 2\n\n\n' txn
ti '\nput a 1\ndel a\n\n\n' txn
ti '\ndel a\ndel a --prefix\n\n\n' txn
ti '\nget a --rev 1000\n\n\n' txn
ti '\nput a x --lease=77\n\n\n' txn
ti '\nput nokey --ignore-value\n\n\n' txn
ti '\n\n\n' txn
ti 'value("k1") = "v1b"\nversion("k1") = "2"\n\nget k1\n\n\n' txn -w json
ti '\nput a 1\ndel b\n\n\n' txn -w json
t get '' --prefix
