"""The public path of `moving.schedule`."""

from .moving.schedule import Schedule as Schedule
from .moving.schedule import site_rates as site_rates
