# Every form of output of every answer, flags in Go's spellings, and flags before the command.
. "$LIB"
t put a 1
t put b '<&> "quoted" \back é'
t put $'bin\x01\xff' $'\x80\x00\n\x07end'
for form in simple json fields table; do t endpoint hashkv -w $form; done
for form in simple json fields; do
  t get '' --prefix -w $form
  t get nothing -w $form
  t get b --hex -w $form
  t put a 2 --prev-kv -w $form
  t put gone x -w $form
  t del gone --prev-kv -w $form
  t del gone -w $form
  ti 'value("a") = "2"\n\nget a\nput c 3 --prev-kv\ndel c --prev-kv\n\nget b\n\n' txn -w $form
  ti 'version("a") = "0"\n\nget a\n\nget b --print-value-only\n\n' txn -w $form
  t lease grant 600 -w $form
  id=$(ctl lease grant 600 | awk '{print $2}')
  ctl put leased x --lease="$id"
  t lease timetolive "$id" -w $form
  t lease timetolive "$id" --keys -w $form
  t lease keep-alive "$id" --once -w $form
  t lease timetolive 123abc -w $form
  t lease keep-alive 123abc --once -w $form
  t lease revoke "$id" -w $form
  t lease revoke 123abc -w $form
  t endpoint health -w $form
  t endpoint status -w $form
  t endpoint health --cluster
  t member list -w $form
  t defrag -w $form
done
t endpoint health -w table
t endpoint status -w table
t member list -w table
t get a --prefix=true --keys-only=false
t get a -w=json
t -w json get a
t get --write-out=json a
t get a --order=descend --sort-by=version --prefix
t alarm list -w json
t alarm disarm -w json
# The id of a cluster may have fewer digits than another one's.
t member add extra --learner --peer-urls=http://127.0.0.1:9 | tr -s ' '
id=$(ctl member list | awk -F, '/unstarted/ {print $1}')
t member list | sort -t, -k2
t member update "$id" --peer-urls=http://127.0.0.1:10 | tr -s ' '
t member remove "$id" | tr -s ' '
# Last, since etcdctl carries them out before it finds that it cannot show them.
for command in 'put a 1' 'get a' 'del a' 'lease list' 'lease grant 5' 'alarm list'; do
  t $command -w table
done
