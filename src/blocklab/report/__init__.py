"""Results in, one offline page, tables and figures out."""
