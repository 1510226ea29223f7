"""Runs that were trained elsewhere: tables and folders of other programs -> results."""
