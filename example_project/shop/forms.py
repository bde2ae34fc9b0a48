"""The forms of the storefront."""

from typing import TYPE_CHECKING

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User

if TYPE_CHECKING:
    # Generic for the type checker only; at run time Django's form takes no brackets.
    AccountForm = UserCreationForm[User]
else:
    AccountForm = UserCreationForm


class SignUpForm(AccountForm):
    """Open an account."""

    email = forms.EmailField()

    class Meta:
        model = User
        fields = ("username", "email")
        help_texts = {"username": ""}


class CheckoutForm(forms.Form):
    """Ask where the receipt goes; a customer with an account is not asked again."""

    email = forms.EmailField(label="E-mail for the receipt")


class QuantityForm(forms.Form):
    """Change how many of one product are in the basket."""

    quantity = forms.IntegerField(min_value=0, max_value=20)
