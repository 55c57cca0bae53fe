"""What to label next: scores of unlabelled inputs, of the class probabilities of many passes."""
