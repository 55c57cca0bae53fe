"""What finished runs tell: figures with intervals, a table, words, a page."""
