#!/bin/sh
# The service `greeting` in shell: one request on standard input, its answer on standard output.
# A shell cannot listen on a port; inetd.pl does that, and runs this for each connection.
end=$(printf '\r')
while IFS= read -r line && [ "$line" != "$end" ]; do :; done
body="hello from shell (process $$)"
printf 'HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n'
printf 'Content-Length: %d\r\nConnection: close\r\n\r\n%s\n' $((${#body} + 1)) "$body"
