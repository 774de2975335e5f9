"""Python clients beside each other on the same server: ours, `etcd3` and `aetcd`."""
