"""``{% load koomalooma %}``: the widget's tag. What it renders is decided in `widget.py`."""

from __future__ import annotations

from django import template
from django.template import Context
from django.utils.safestring import SafeString

from ..widget import render_snippet

register = template.Library()


@register.simple_tag(takes_context=True)
def koomalooma_widget(context: Context) -> SafeString:
    """Render koomalooma's widget for the visitor of this page; nothing where no snippet is set."""
    return render_snippet(context.get("request"))
