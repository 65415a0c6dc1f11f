"""What a WSGI server loads: `gunicorn wsgi:app`."""

from flask.cli import load_dotenv

from financial_agent import startup

load_dotenv()
app = startup.serve()
