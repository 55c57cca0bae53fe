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
    "grand-cora": Table(
        title="GRAND on Cora: predictions from several draws of dropped nodes, which have to agree",
        paper="Feng et al. 2020 (arXiv:2005.11079)",
        figure="test accuracy, %",
        rows=(Row("GRAND", 85.4, 0.8),),
        band="85.4 ± 0.4 over 100 runs is published: twice that",
        settings="as the authors' run_cora.sh: 4 draws of DropNode at 0.5, not scaled; mean of 0 to 8 steps; "
        "1433-32-7, dropout 0.5 and 0.5; Adam, rate 0.01, decay 5e-4; consistency 1.0, temperature 0.5; patience 200",
        seeds=1,
        minutes=6,
        module="grand_cora",
    ),
}
