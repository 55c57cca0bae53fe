"""What the pages say of tutorials, shown by running."""
