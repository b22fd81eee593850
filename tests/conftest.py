"""What every test shares."""

import random

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # the tensors are small


@pytest.fixture(autouse=True)
def seed():
    """Each test draws the same numbers whatever ran before it, so that what passes once passes always."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def one_thread():
    """What a program sets that a test runs does not last."""
    yield
    torch.set_num_threads(1)
