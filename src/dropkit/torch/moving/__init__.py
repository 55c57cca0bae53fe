"""Rates that move while a model trains: schedules, callbacks of other people's loops, and a record of the rates."""
