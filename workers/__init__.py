"""Job store and Celery workers. The store on disk is the truth; Redis only carries job ids."""
