"""The storage protocol: object store access, snapshots, the SCD2 rules, commits, scans."""
