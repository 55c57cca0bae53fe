"""Monte Carlo dropout: predictions of many passes, judged, calibrated, and used to choose what to label.

It loads NumPy alone; `predict` loads the frontend of its model.

>>> from dropkit.uncertainty import brier, conformal, nll
>>> p, y = [[0.9, 0.1], [0.2, 0.8]], [0, 1]
>>> round(nll(p, y), 6), round(brier(p, y), 6)
(0.164252, 0.05)
"""

from .acquiring.batches import Batch as Batch
from .acquiring.batches import batch_bald as batch_bald
from .acquiring.batches import epig as epig
from .acquiring.single import bald as bald
from .acquiring.single import max_entropy as max_entropy
from .acquiring.single import variation_ratio as variation_ratio
from .conforming import conformal as conformal
from .conforming.intervals import ConformalIntervals as ConformalIntervals
from .conforming.mapie import as_mapie as as_mapie
from .conforming.sets import ConformalSets as ConformalSets
from .judging.calibration import Reliability as Reliability
from .judging.calibration import adaptive_ece as adaptive_ece
from .judging.calibration import classwise_ece as classwise_ece
from .judging.calibration import ece as ece
from .judging.calibration import reliability as reliability
from .judging.classification import accuracy as accuracy
from .judging.classification import brier as brier
from .judging.classification import nll as nll
from .judging.covering import QuantileCalibration as QuantileCalibration
from .judging.covering import interval_coverage as interval_coverage
from .judging.covering import interval_width as interval_width
from .judging.covering import quantile_calibration as quantile_calibration
from .judging.covering import set_coverage as set_coverage
from .judging.covering import set_size as set_size
from .judging.detection import fpr95 as fpr95
from .judging.detection import ood_auroc as ood_auroc
from .judging.regression import crps as crps
from .judging.regression import gaussian_nll as gaussian_nll
from .judging.regression import log_likelihood as log_likelihood
from .judging.regression import rmse as rmse
from .judging.selective import RiskCoverage as RiskCoverage
from .judging.selective import augrc as augrc
from .judging.selective import aurc as aurc
from .judging.selective import excess_aurc as excess_aurc
from .judging.selective import risk_coverage as risk_coverage
from .judging.smooth import smooth_ece as smooth_ece
from .predicting import predict as predict
from .result import Prediction as Prediction
from .temperature import Temperature as Temperature
from .temperature import temperature_scaling as temperature_scaling
