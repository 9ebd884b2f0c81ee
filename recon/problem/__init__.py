"""The inverse problem of a measurement: operator, data, noise, initial image, data step."""
