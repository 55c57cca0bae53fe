"""A loop of one's own, or estimators of scikit-learn's kind, compared as recipes are."""
