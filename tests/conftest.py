"""What every test shares."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def seed():
    """Each test draws the same numbers whatever ran before it, so that what passes once passes always."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
