"""Celery workers around the job folder: the folder is the truth, Redis only carries ids."""
