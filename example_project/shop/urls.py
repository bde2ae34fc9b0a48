"""The storefront's addresses."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path

from shop import views

app_name = "shop"
urlpatterns = [
    path("", views.catalogue, name="catalogue"),
    path("basket/", views.basket, name="basket"),
    path("basket/<slug:slug>/add/", views.add_to_basket, name="add"),
    path("basket/<slug:slug>/", views.change_quantity, name="quantity"),
    path("checkout/", views.checkout, name="checkout"),
    path("orders/", views.orders, name="orders"),
    path("orders/<str:number>/", views.order, name="order"),
    path("orders/<str:number>/pay/", views.pay, name="pay"),
    path("orders/<str:number>/cancel/", views.cancel, name="cancel"),
    path("account/sign-up/", views.sign_up, name="sign_up"),
    path("account/log-in/", LoginView.as_view(template_name="shop/log_in.html"), name="login"),
    path("account/log-out/", LogoutView.as_view(), name="logout"),
]
