"""Settings of the example shop. Everything that differs between machines comes from the environment:
DATABASE_URL, CELERY_BROKER_URL, EXAMPLE_* and KOOMALOOMA_*. The defaults need no server at all."""

import os
from pathlib import Path
from typing import Any

from kombu.entity import Queue

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(os.environ.get("EXAMPLE_DATA_DIR") or BASE_DIR / ".run")
DATA_DIR.mkdir(parents=True, exist_ok=True)

# A development key and DEBUG: the example is for trying out on one's own machine, never for the internet.
SECRET_KEY = os.environ.get("EXAMPLE_SECRET_KEY", "only-for-trying-out-never-for-a-real-shop")
DEBUG = os.environ.get("EXAMPLE_DEBUG", "1") == "1"
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django_koomalooma",
    "shop",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "example.urls"
WSGI_APPLICATION = "example.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "shop.context_processors.shop",
            ]
        },
    }
]

LANGUAGE_CODE = "en-gb"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
LOGIN_URL = "shop:login"
LOGIN_REDIRECT_URL = "shop:orders"
LOGOUT_REDIRECT_URL = "shop:catalogue"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
# Two demos on one host share the cookie jar of a browser, which knows no ports.
COOKIE_PREFIX = os.environ.get("EXAMPLE_COOKIE_PREFIX", "")
SESSION_COOKIE_NAME = f"{COOKIE_PREFIX}sessionid"
CSRF_COOKIE_NAME = f"{COOKIE_PREFIX}csrftoken"


def database() -> dict[str, Any]:
    """Return the one database: DATABASE_URL, or a SQLite file in the data directory."""
    url = os.environ.get("DATABASE_URL")
    if url:
        # Imported here: a shop on SQLite does not need the package.
        import dj_database_url

        return dict(dj_database_url.parse(url))
    return {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATA_DIR / "shop.sqlite3",
        "OPTIONS": {
            # Django's deferred default fails at once with "database is locked" when a transaction that has
            # read wants to write after another process has written.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
        },
    }


DATABASES = {"default": database()}

# Celery: a folder serves as the broker unless CELERY_BROKER_URL names Redis or RabbitMQ.
CELERY_BROKER_URL = os.environ.get("CELERY_BROKER_URL") or "filesystem://"
if CELERY_BROKER_URL == "filesystem://":
    _folder = DATA_DIR / "broker"
    (_folder / "control").mkdir(parents=True, exist_ok=True)
    CELERY_BROKER_TRANSPORT_OPTIONS = {
        "data_folder_in": str(_folder),
        "data_folder_out": str(_folder),
        "control_folder": str(_folder / "control"),
        "polling_interval": 0.2,
    }
CELERY_TASK_DEFAULT_QUEUE = os.environ.get("EXAMPLE_QUEUE", "koomalooma-example")
# The queue of a demo that was killed goes away by itself.
CELERY_TASK_QUEUES = [
    Queue(CELERY_TASK_DEFAULT_QUEUE, routing_key=CELERY_TASK_DEFAULT_QUEUE, expires=24 * 3600)
]
CELERY_TASK_IGNORE_RESULT = True
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_WORKER_ENABLE_REMOTE_CONTROL = False
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "celerybeat-schedule")
SWEEP_SECONDS = float(os.environ.get("EXAMPLE_SWEEP_SECONDS", "60"))
# Beat looks up from its sleep every second, so that it ends soon when it is told to.
CELERY_BEAT_MAX_LOOP_INTERVAL = 1
CELERY_BEAT_SCHEDULE = {
    "koomalooma": {
        "task": "django_koomalooma.tasks.deliver_due",
        "schedule": SWEEP_SECONDS,
        "options": {"expires": max(SWEEP_SECONDS - 5, 1)},
    }
}

# koomalooma: the defaults are the sandbox's (`manage.py koomalooma_sandbox`).
KOOMALOOMA_API_URL = os.environ.get("KOOMALOOMA_API_URL", "http://127.0.0.1:8765/api")
KOOMALOOMA_API_TOKEN = os.environ.get("KOOMALOOMA_API_TOKEN", "sandbox-token")
KOOMALOOMA_PARTNER_ID = os.environ.get("KOOMALOOMA_PARTNER_ID", "sandbox-partner")
# What the panel of koomalooma generates is pasted here whole; this one is pretended and loads nothing.
KOOMALOOMA_WIDGET_SNIPPET = (
    f'<span class="earn" data-partner-id="{KOOMALOOMA_PARTNER_ID}" data-session-id="%%sessionId%%">'
    "koomalooma points on every order</span>"
)
KOOMALOOMA_MODE = os.environ.get("KOOMALOOMA_MODE", "live")

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"django_koomalooma": {"handlers": ["console"], "level": "INFO"}},
}
