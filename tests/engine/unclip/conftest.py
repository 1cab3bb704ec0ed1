import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Tiny tensors are slower on several threads, and far slower where other tests use the cores."""
    torch.set_num_threads(1)
