"""Views of objects, written as the loaders of other projects read them: one module for one or two layouts."""
