"""The public path of `moving.rate_log`."""

from .moving.rate_log import RateLog as RateLog
