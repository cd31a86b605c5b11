"""How does a server stay up, and go down with nothing left? What `swell up` runs; standard library only."""
