#!/usr/bin/env perl
# The service `greeting` in Perl: greet.pl PORT. Listens on HOST (default 127.0.0.1).
use strict;
use warnings;
use IO::Socket::INET;

my $listener = IO::Socket::INET->new(
    LocalAddr => $ENV{HOST} // '127.0.0.1',
    LocalPort => $ARGV[0],
    Listen    => 64,
    ReuseAddr => 1,
) or die "cannot listen on port $ARGV[0]: $@\n";
$SIG{PIPE} = 'IGNORE';
while (my $caller = $listener->accept) {
    while (defined(my $line = <$caller>)) { last if $line eq "\r\n" }
    my $body = "hello from Perl (process $$)\n";
    my $length = length $body;
    print $caller "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        . "Content-Length: $length\r\nConnection: close\r\n\r\n$body";
    close $caller;
}
