"""Real S3 APIs over HTTP for the tests: servers and a fault-injecting proxy, each a process of its own on 127.0.0.1."""
