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
    "char-gpt": Table(
        title="nanoGPT on the characters of tiny Shakespeare, and at several rates over one and ten passes of the text",
        paper="karpathy/nanoGPT, README, the form for CPUs (commit 3adf61e)",
        figure="validation loss, nats a character",
        rows=(
            Row("2,000 steps, p = 0", 1.88, 0.05),
            *(Row(f"one pass, p = {rate}") for rate in (0, 0.1, 0.2, 0.3)),
            *(Row(f"ten passes, p = {rate}") for rate in (0, 0.1, 0.2, 0.3)),
        ),
        band="one run is published, evaluated on 20 batches, without a spread: 0.05",
        settings="4 layers of 4 heads and width 128, blocks of 64, batches of 12; AdamW 0.001 down a cosine to 0.0001, "
        "100 steps of warm-up, betas 0.9 and 0.99, decay 0.1, norms clipped at 1; the first nine tenths train; "
        "evaluated on 200 batches in place of 20. Rates and passes are ours, with the same schedule over all steps",
        seeds=1,
        minutes=90,
        module="char_gpt",
    ),
    "char-lstm": Table(
        title="A character-level LSTM with weight drop, locked and embedding dropout",
        paper="Merity, Keskar and Socher 2018 (arXiv:1708.02182), whose figures are of words and of larger texts",
        figure="validation loss of the best pass, nats a character",
        rows=(
            Row("no dropout"),
            Row("locked and embedding dropout"),
            Row("weight drop alone"),
            Row("weight drop, locked and embedding dropout"),
        ),
        band="none: of this text no figure of such a network is published; the rows are to be compared with each other",
        settings="2 LSTMs of width 128 on 64 embedded features, 20 passes of the first 100,000 characters of tiny "
        "Shakespeare in 20 columns of 50 steps, Adam 0.003 down a cosine, norms clipped at 0.25, states carried on; "
        "rates 0.05 of words, 0.1 in, 0.25 between, 0.4 out, 0.5 of weights",
        seeds=1,
        minutes=30,
        module="char_lstm",
    ),
}
