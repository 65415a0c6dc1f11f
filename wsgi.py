"""What a WSGI server loads: `gunicorn wsgi:app`."""

from flask.cli import load_dotenv

from financial_agent import create_app, startup

load_dotenv()
app = create_app()
startup.serve(app)
