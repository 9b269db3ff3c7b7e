"""Pictures of a trained model, by matplotlib; the conventions are those of `landscape.plots`.

`nld_models.plots.gallery.PICTURES` has every picture by name, as `nld plot --what` uses them. States have the numbers
and the colours of the learned energy (`landscape.plots.style.state_color`), the lowest minimum first, in every picture;
true states are drawn in the colour of the learned state that stands for them.
"""
