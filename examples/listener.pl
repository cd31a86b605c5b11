#!/usr/bin/perl
# A web server in a few lines of what every Debian and Ubuntu has. The port is its argument.
use strict;
use warnings;
use IO::Socket::INET;

my $server = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => $ARGV[0], Listen => 64, ReuseAddr => 1)
    or die "cannot listen on port $ARGV[0]: $!";
$SIG{TERM} = sub { exit 0 };
while (my $client = $server->accept) {
    my ($line, $length) = (scalar <$client> // '', 0);
    while (my $header = <$client>) {
        last if $header =~ /^\r?\n$/;
        $length = $1 if $header =~ /^content-length:\s*(\d+)/i;
    }
    read $client, my $body, $length if $length;
    my ($method, $path) = split ' ', $line;
    my $text = "perl $$ saw " . ($method // '') . ' ' . ($path // '') . ($length ? " with $length bytes\n" : "\n");
    print $client "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: ", length $text,
        "\r\nConnection: close\r\n\r\n", $text;
    close $client;
}
