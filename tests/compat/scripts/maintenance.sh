# Members, endpoints, alarms, compaction, defragmentation, snapshots, hashes.
. "$LIB"
t put a 1
t put a 2
t put b 1
t del b
t member list | sort -t, -k2
t member list -w json
t member list -w table
t endpoint health
t endpoint health -w json
t endpoint health -w table
t endpoint status
t endpoint status -w json
t endpoint status -w table
t endpoint status -w fields
t endpoint hashkv
t endpoint hashkv --rev 3
t endpoint hashkv --rev 100
t alarm list
t alarm disarm
t compaction 3
t compaction 3
t compaction 100
t compaction 4 --physical
t get a --rev 2
t endpoint hashkv
t defrag
t snapshot save snap.db
[ "$(($(stat -c %s snap.db) % 512))" = 0 ] && echo "a whole number of sectors"
t move-leader 1
t member remove 1
t member update 1 --peer-urls=http://127.0.0.1:1
t member add learner1 --learner --peer-urls=http://127.0.0.1:1
t member add learner2 --learner --peer-urls=http://127.0.0.1:2
t member list | sort -t, -k2
t member add bad --peer-urls=nonsense
t member promote 1
id=$(ctl member list | awk -F, '/unstarted/ {print $1}')
t member promote "$id"
t member remove "$id"
t member remove "$id"
t member list | sort -t, -k2
t auth enable
t user add someone --no-password
t role list
t version
t get a -w protobuf --print-value-only
