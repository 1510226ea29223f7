"""Where images come from, their splits, the cache, batches on the device."""
