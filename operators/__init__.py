"""Linear forward models of CT and MRI scanners, with exact adjoints. Knows nothing of jobs or networks."""
