"""The published tables that can be run here, by name. A new one is an entry, and a module that trains."""

from .table import Row, Table

TABLES: dict[str, Table] = {
    "dropedge-cora": Table(
        title="DropEdge on Cora: graph convolutional networks with all edges, and with some left out in each step",
        paper="Rong et al. 2020 (arXiv:1907.10903)",
        figure="test accuracy, %",
        rows=(
            Row("semi-supervised, 2 layers, all edges", 81.1, 1.5),
            Row("semi-supervised, 2 layers, DropEdge", 82.8, 1.5),
            Row("full-supervised, 4 layers, all edges", 85.5, 1.5),
            Row("full-supervised, 4 layers, DropEdge", 87.6, 1.5),
        ),
        band="no spread is published, and each figure is of one seed with settings tuned for it: 1.5 points",
        settings="as the authors' scripts: width 128, dropout 0.8 behind hidden layers, 400 epochs of Adam, weights of "
        "the best validation loss in training mode; 2 layers: rate 0.007, decay 1e-5, 40 % of edges, (D + I)^-1/2 (A + "
        "I) (D + I)^-1/2; 4 layers: rate 0.01, decay 0.005, 70 % of edges, I + D^-1/2 A D^-1/2",
        seeds=5,
        minutes=0.5,
        module="dropedge_cora",
    ),
}
