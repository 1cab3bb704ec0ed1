"""What people are to know of the models before they ask: what each can do, and how it usually paints."""

from pydantic import BaseModel, Field

from engine.jobs import Kind, Painter, Preset
from engine.studio.desk import Models


class ModelView(BaseModel):
    """A model. What is not known before it is loaded is null."""

    model: str = Field(description="What a request calls it; empty is the usual one")
    name: str = Field(description="What people call it")
    is_loaded: bool
    kinds: list[Kind] | None = Field(description="What it can do")
    steps: dict[Preset, int] | None = Field(description="Usual steps of the base decoder; 0 where there are none")
    guidance: list[float] | None = Field(description="Usual guidance of each unet, the base decoder first")
    prior_guidance: float | None = Field(description="Usual guidance of the prior; null where there is none, too")
    seamless: bool | None = Field(description="Whether pictures may go on in their neighbours")
    words: list[str] | None = Field(description="All words that it knows; empty where these are too many for a list")


class ModelsView(BaseModel):
    """All models, the usual one first."""

    models: list[ModelView]


def models_view(models: Models) -> ModelsView:
    """Say what is known of all models."""
    usual = models.painter_of("")
    others = [name for name in models.models if usual is None or name != usual.model]
    views = [view_of(model, name, models.painter_of(model)) for model, name in [("", usual.model if usual else ""), *((one, one) for one in others)]]
    return ModelsView(models=views)


def view_of(model: str, name: str, painter: Painter | None) -> ModelView:
    """Say what is known of a model; there is no painter of one that is not loaded."""
    return ModelView(
        model=model,
        name=name,
        is_loaded=painter is not None,
        kinds=sorted(painter.kinds) if painter else None,
        steps={preset: painter.usual_steps(preset) for preset in Preset} if painter else None,
        guidance=list(painter.usual_guidance) if painter else None,
        prior_guidance=painter.usual_prior_guidance if painter else None,
        seamless=painter.can_be_seamless if painter else None,
        words=list(painter.known_words) if painter else None,
    )
