#!/usr/bin/env perl
# inetd.pl PORT COMMAND...: runs COMMAND for each connection, which is its input and its output.
# Listens on HOST (default 127.0.0.1).
use strict;
use warnings;
use IO::Socket::INET;

my ($port, @command) = @ARGV;
my $listener = IO::Socket::INET->new(
    LocalAddr => $ENV{HOST} // '127.0.0.1',
    LocalPort => $port,
    Listen    => 64,
    ReuseAddr => 1,
) or die "cannot listen on port $port: $@\n";
$SIG{CHLD} = 'IGNORE';    # nobody waits for those who have ended
while (1) {
    my $caller = $listener->accept or next;
    my $child  = fork;
    if (defined $child && $child == 0) {
        open STDIN,  '<&', $caller or die;
        open STDOUT, '>&', $caller or die;
        exec @command or die "cannot run $command[0]: $!\n";
    }
    close $caller;
}
