"""The numbers of a mask and what they do to a tensor: in torch's operators, in kernels, and where somebody records."""
