"""The descriptor pool of our generated messages, apart from protobuf's default one."""

from google.protobuf.descriptor_pool import DescriptorPool

_POOL = DescriptorPool()


def Default() -> DescriptorPool:  # noqa: N802 - generated code calls it by protobuf's name
    """Stands in for `descriptor_pool.Default()` in generated code."""
    return _POOL
