"""``nnpack demo``: enlarge or label a photograph with a real network, run by this library alone.

command       the command: options, progress, the report         (typer, rich)
picture       photographs: read, write, halve, compare           (Pillow, scikit-image)
weights       where the trained weights come from: cache, pip, a file of the user's
ncnn          reader of ncnn weight files
upconv        the network upconv_7 as layers of nnpack
tiles         a large picture in tiles, without seams
classify      the command with ``--network``: labels, the time of every layer  (rich)
checkpoint    reader of what PyTorch saved
efficientnet  EfficientNet-Lite0 as data
classifier    a network of convolutions as layers of nnpack
"""
